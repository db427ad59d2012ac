"""Drawn labels: polygons, runs, boxes and ellipses of annotation tools, read to masks and written back."""
