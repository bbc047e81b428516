"""The federation: site, aggregator and the NVFlare components around them."""
