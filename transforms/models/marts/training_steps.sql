{{ config(post_hook="{{ export_mart('session_id, step') }}") }}

with learned as (

    select *
    from {{ ref('int_event_items') }}
    where
        event_name in {{ step_event_names() }}
        and session_id not in (select s.session_id from {{ ref('int_left_out_sessions') }} as s)

),

steps as (

    select
        *,
        lag(item_id) over (
            partition by session_id order by occurred_at, event_id, item_number
        ) as previous_item_id,
        -- Repeats hide what became of an item, so it is looked up before they collapse.
        max(
            case event_name when 'purchase' then 3 when 'add_to_cart' then 2 else 1 end
        ) over (
            partition by session_id, item_id
            order by occurred_at, event_id, item_number
            rows between current row and unbounded following
        ) as outcome
    from learned

),

-- The model learns what comes next: an item seen again at once (a reload, or put into the cart
-- from its own page) is the same step.
collapsed as (

    select *
    from steps
    where previous_item_id is distinct from item_id

),

numbered as (

    select
        session_id,
        (
            row_number() over (
                partition by session_id order by occurred_at, event_id, item_number
            ) - 1
        )::integer as step,
        item_id,
        event_name,
        occurred_at,
        ['view_item', 'add_to_cart', 'purchase'][outcome] as outcome
    from collapsed

)

select * from numbered
