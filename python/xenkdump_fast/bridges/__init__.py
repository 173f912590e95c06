"""Other tools on a domain: one package for each. They are imported only where they are used."""
