"""File systems of Airflow's ObjectStoragePath."""
