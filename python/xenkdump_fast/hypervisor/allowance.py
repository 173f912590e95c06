"""How much of a dump may be looked at for one purpose."""


class Allowance:
    """An amount of memory that is looked at; it only gets less.

    What a domain owns is its own: the structs that Xen keeps of it and of its vCPUs, its kernel,
    its frames. So what all domains take together is no more than the dump has. In a hostile dump
    thousands of domains may share what they have, and each is another walk through it; there the
    allowance is used up, and what is left is not looked at.
    """

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        #: Bytes that may still be looked at.
        self.left = size

    def take(self, size: int) -> bool:
        """Spends ``size`` bytes; False, and nothing is left, where there are not so many."""
        if size > self.left:
            self.left = 0
            return False
        self.left -= size
        return True
