"""What Feast knows of pins and users: declarations only."""
