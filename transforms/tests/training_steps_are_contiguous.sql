select
    session_id,
    count(*) as n_steps
from {{ ref('training_steps') }}
group by session_id
having min(step) != 0 or max(step) != count(*) - 1 or count(distinct step) != count(*)
