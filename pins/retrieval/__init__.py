"""The read side: search, related pins and home feed as pure merges over a PinIndex. Every answer is one model's."""
