"""How much of a dump may be looked at for one purpose."""


class Allowance:
    """An amount of memory that is looked at; it only gets less.

    What a domain, a vCPU or a module owns is its own: its structs, its kernel, its tables. So what
    all of them take together is no more than the dump has. In a hostile dump thousands of them may
    share what they have, and each is another walk through it; there the allowance is used up, and
    what is left is not looked at.
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
