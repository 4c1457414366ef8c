"""A text, for all that texts find: by meaning, by words, by pictures."""

from data_models import SearchMode
from web.search_page import show_search_page

show_search_page(SearchMode.HYBRID)
