"""Text, tables, JSON and progress: how results reach the terminal."""
