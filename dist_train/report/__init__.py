"""A run's folder -> one HTML page that holds everything: figures, curves, mistakes to hear, how to repeat it.

    RUN --folder--> runs, scores --content--> plain values --page--> HTML

`folder`, `lines` read; `curves`, `measures`, `guesses`, `rows`, `clips`, `media`, `plane`, `facts` make something of
it; `template/` lays it out. Nothing but `page` knows of HTML.
"""
