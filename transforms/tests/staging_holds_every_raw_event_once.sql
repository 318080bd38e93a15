-- Raw is the truth: each of its event ids is in staging, and nothing else is.
with raw_events as (

    select distinct event_id from {{ read_raw(raw_objects()) }}

),

loaded as (

    select event_id from {{ ref('stg_shop__events') }}

)

select
    coalesce(raw_events.event_id, loaded.event_id) as event_id,
    loaded.event_id is null as is_missing
from raw_events
full outer join loaded on raw_events.event_id = loaded.event_id
where raw_events.event_id is null or loaded.event_id is null
