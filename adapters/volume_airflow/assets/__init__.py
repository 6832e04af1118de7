"""Volumes as Airflow's assets."""
