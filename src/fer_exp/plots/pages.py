"""HTML pages from templates of this package."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from fer_exp.files import printable


def page_templates() -> Environment:
    """The templates, by path in the package: text is escaped for HTML and on one line, a missing value is an error."""
    return Environment(
        loader=PackageLoader("fer_exp", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
