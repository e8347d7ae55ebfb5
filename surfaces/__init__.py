"""Search, related pins and home feed over HTTP, and the web page."""
