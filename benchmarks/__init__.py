"""Speed and quality beside peers; each file says its command."""
