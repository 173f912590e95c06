"""The kernels of samples, one set of modules an age: source, text, and how it runs."""
