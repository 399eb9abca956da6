"""The report: one self-contained HTML page of a run, for people.

:mod:`~evalscope_vacc.report.data` gathers what the run left behind, :mod:`~evalscope_vacc.report.plot` lays the figures
out, :mod:`~evalscope_vacc.report.page` renders the page. The plots are drawn by the template itself (HTML and SVG of a
few kilobytes), not by a plotting library of four megabytes: the page stays small enough to send by mail, readable
without scripts, and its text can be selected, searched and read aloud.
"""
