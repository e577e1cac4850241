-- join <topic> <group> <start> <position> <consumer> <prefetch> <timeout> <deliveries> <again>
local function first_position(topic, start, position, again)
  if again or start == 'beginning' then
    return topic.first
  elseif start == 'now' then
    return topic.next
  elseif position + 1 >= topic.first then
    return position + 1
  end
end

local function create(topic, name, listed)
  local start, position, again = ARGV[7], tonumber(ARGV[8]), ARGV[13] == '1'
  local floor = listed and tonumber(string.match(listed, ' (%d+)$'))
  local first = floor and at_least(floor + 1, topic.first) or first_position(topic, start, position, again)
  if not first then
    return nil, { 'not_retained', topic.first }
  end
  -- Its dead letters know it by its number; its receipts are void, since members get new ones.
  local incarnation = listed and tonumber(string.match(listed, '^%d+')) or number()
  local group = {
    name = name, topic = topic.name, packed = false, known_members = {}, gap_count = 0, cursor = first,
    floor = first - 1, first = first, deliveries = C.deliveries,
    members = 0, in_flight = 0, returning = 0, ready = 0, suspects = 0, idle = NEVER, expired = false,
    lost = 0, due = NEVER, revived = 0, gaps = {}, incarnation = incarnation, key = P .. 'g:' .. int(incarnation),
    index = P .. 'due:' .. int(incarnation), recorded = false,
  }
  open_group(group, '')
  known.groups[incarnation], remembered = group, remembered + 1
  local params = { 'group', name, 'incarnation', incarnation, 'starts_at', first }
  if not listed and not again then
    journal { component = 'bus', operation = 'group_created', subject = topic.name, params = params }
  else
    journal {
      component = 'bus', operation = 'group_restored', subject = topic.name, severity = 'MEDIUM', params = params,
    }
    if not listed or first > floor + 1 then
      lose(topic, group, floor and first - floor - 1 or 0, first)
    end
  end
  if listed then
    for _, index in ipairs({ 'ready:', 'suspects:', 'due:' }) do
      call('DEL', P .. index .. int(incarnation))
    end
    list_waiting(topic, incarnation, false)
  end
  return group
end

local function verb()
  local wrong = check_room { { name = ARGV[5] } }
  if wrong then
    return wrong
  end
  local topic, name = make_topic(ARGV[5]), ARGV[6]
  local listed = call('HGET', P .. 'tg:' .. topic.name, name)
  local group = listed and find_group(tonumber(string.match(listed, '^%d+')))
  if not group then
    local count = call('HLEN', P .. 'tg:' .. topic.name) + 1
    if not listed and count > C.groups then
      forget_vacant(topic)
      return { 'groups', count }
    end
    group, wrong = create(topic, name, listed)
    if wrong then
      forget_vacant(topic)
      return wrong
    end
  end
  return_group(topic, group)
  local consumer = number()
  group.deliveries = ARGV[12] ~= '' and tonumber(ARGV[12]) or group.deliveries
  group.members, group.idle = group.members + 1, NEVER
  save_member(group, consumer, {
    name = ARGV[9] ~= '' and ARGV[9] or 'consumer-' .. int(consumer), channel = CHANNEL, timeout = tonumber(ARGV[11]),
    prefetch = tonumber(ARGV[10]), in_flight = 0, suspects = 0, gone = false, done = 0, wait = false, answers = {},
  })
  call('SADD', P .. 'pc:' .. CALLER, int(group.incarnation) .. ' ' .. int(consumer))
  show_life()
  return { 'ok', group.incarnation, consumer }
end
