"""Personal bundles and adapter folders made from a finished run."""
