"""Task decorators of Airflow."""
