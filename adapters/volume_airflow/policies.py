"""What becomes of tasks and pods before they run: the entry point `airflow.policy`."""
