-- Sessions from a table of lines: one row a session, its events in order, and the incident among its lines, or else normal.
-- Run where the lines are, for instance with `.read examples/sessions.sql` in DuckDB, or hand the query to `seqbag train --sql`.
SELECT
    session,
    list(event ORDER BY timestamp) AS events,
    coalesce(max(label) FILTER (label <> 'normal'), 'normal') AS label
FROM read_parquet('logs.parquet')
GROUP BY session
ORDER BY min(timestamp), session
