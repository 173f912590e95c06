"""Where a kernel lies in memory and which build it is."""
