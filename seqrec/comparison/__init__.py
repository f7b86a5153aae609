"""From finished runs to tables, pictures and a page. Imports basics, data and evaluation."""
