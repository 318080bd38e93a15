{{ config(post_hook="{{ export_mart('item_id') }}") }}

with event_items as (

    select * from {{ ref('int_event_items') }}

),

-- What a program or an outlier names is in the shop all the same: it describes, and does not count.
marked as (

    select
        event_items.*,
        left_out.session_id is null as is_counted
    from event_items
    left join {{ ref('int_left_out_sessions') }} as left_out
        on event_items.session_id = left_out.session_id

),

aggregated as (

    select
        item_id,
        last(title order by occurred_at, event_id, item_number)
        filter (title is not null) as title,
        last(category order by occurred_at, event_id, item_number)
        filter (category is not null) as category,
        last(price order by occurred_at, event_id, item_number)
        filter (price is not null) as price,
        count(*) filter (event_name = 'view_item' and is_counted) as n_views,
        count(*) filter (event_name = 'add_to_cart' and is_counted) as n_carts,
        count(*) filter (event_name = 'purchase' and is_counted) as n_purchases,
        min(occurred_at) as first_seen_at,
        max(occurred_at) as last_seen_at
    from marked
    group by item_id

)

select * from aggregated
