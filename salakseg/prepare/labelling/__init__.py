"""Labels on the grid of a source: polygons, rasters, masks, COCO and LabelMe."""
