"""Readers of data set layouts, one file per layout; `perpixel.data.source.FORMATS` lists them."""
