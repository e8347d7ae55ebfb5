"""The commands, by what they are for. `everpin.cli` lists them all; a module parses, asks and prints, and decides nothing."""
