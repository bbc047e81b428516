"""An exported bundle in a browser: a page on this machine that studies are dropped on.

`app.create_app` makes the server of a :class:`monai_fedlora.clinic.bundle.Classifier`, `settings.ServeSettings` says
where it listens and what it takes, and `run.run_server` runs it until it is interrupted. Nothing here asks another
machine for anything.
"""
