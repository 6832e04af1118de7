"""The pages about volumes that Airflow's API server serves at /volumes.

`lazy.app` is what the plugin mounts; everything else here is imported with the first request.
"""
