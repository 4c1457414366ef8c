"""A4: pictures that fit a text."""

from data_models import SearchMode
from web.search_page import show_search_page

show_search_page(SearchMode.TEXT_TO_IMAGE)
