"""Values with their types, and expressions such as ``init_task.mm->pgd``."""
