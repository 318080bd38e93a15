{{ config(meta={'dagster': {'ref': {'name': 'training_steps'}}}) }}
select training_steps.*
from {{ ref('training_steps') }} as training_steps
inner join {{ ref('sessions') }} as sessions on training_steps.session_id = sessions.session_id
where sessions.excluded_because is not null
