"""A3: titles that fit a picture."""

from data_models import SearchMode
from web.search_page import show_search_page

show_search_page(SearchMode.IMAGE_TO_TEXT)
