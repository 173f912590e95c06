"""The shell: a prompt for commands on a dump that stays open."""
