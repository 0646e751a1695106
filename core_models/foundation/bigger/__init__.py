"""Optional, bigger image models behind the `Eyes` protocol, each from a local folder of weights; none ships here."""
