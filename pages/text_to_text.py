"""A2: titles that mean the same as a text."""

from data_models import SearchMode
from web.search_page import show_search_page

show_search_page(SearchMode.TEXT_TO_TEXT)
