-- Raw is the truth: each event id of an object that staging has read is in staging, and nothing
-- else is. Objects that landed after it read are left to the next build, which reads them.
with raw_events as (

    select
        event_id,
        raw_object
    from {{ read_raw(raw_objects()) }}

),

loaded as (

    select
        event_id,
        raw_object
    from {{ ref('stg_shop__events') }}

)

select
    event_id,
    true as is_missing
from raw_events
where
    raw_object in (select loaded.raw_object from loaded)
    and event_id not in (select loaded.event_id from loaded)
union all
select
    event_id,
    false as is_missing
from loaded
where event_id not in (select raw_events.event_id from raw_events)
