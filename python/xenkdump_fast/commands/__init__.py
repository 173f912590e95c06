"""One file a command: (domain or dump, options) -> a result. None prints."""
