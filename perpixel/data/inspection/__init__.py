"""The detective: reads every file of a data set once and says what will go wrong, why it matters and what mends it.

`perpixel.data.inspection.inspect.inspect_data` is the entrance; one file holds each family of findings.
"""
