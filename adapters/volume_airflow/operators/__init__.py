<<<<<<< HEAD
"""Operators of Airflow."""
=======
"""Operators."""
>>>>>>> airflow
