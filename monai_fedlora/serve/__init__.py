"""Use an exported bundle in a browser: a local web page that takes studies by drag and drop.

`app.create_app` makes the server of a :class:`monai_fedlora.clinic.bundle.Classifier`, `settings.ServeSettings` holds
its address and limits, and `run.run_server` runs it until it is interrupted. It never connects to another machine.
"""
