"""Other tools on a domain: one package for each. They are imported only where they are used."""


class MissingPackageError(ImportError):
    """The package of a tool is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed: pip install 'xenkdump_fast[{extra}]'", name=package
        )
