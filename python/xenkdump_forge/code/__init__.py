"""Machine code: an assembler, the text of a kernel, and the stacks that its functions leave."""
