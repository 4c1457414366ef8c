"""The pages' start: `streamlit run web_demo.py`. Streamlit runs this anew at every click, and it runs the page.

The pages speak to the API over HTTP alone, through `web/client.py`; they may run on another machine.
"""

from web.frame import show_frame

show_frame().run()
