"""Control plane for telephone operations on several Asterisk sites. Never in the path of a call."""

__version__ = "0.1.0"
