"""What the Streamlit pages share. Speaks to the service over HTTP alone."""
