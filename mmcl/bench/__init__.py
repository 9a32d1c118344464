"""`mmcl bench`: what the parts of a training cost on this machine."""
