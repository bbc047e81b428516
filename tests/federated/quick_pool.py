"""The process that starts workers, without what a site needs: for workers that do something else."""

from monai_fedlora.federated import worker_pool

if __name__ == "__main__":
    worker_pool._import_all = lambda: None  # type: ignore[assignment]
    worker_pool.main()
