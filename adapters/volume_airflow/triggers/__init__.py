"""Triggers of Airflow."""
