-- Handing events out, and who waits for them.

-- Whether a member would get something now.
local function has_offer(topic, group, member)
  return member.in_flight < member.prefetch and
    (group.ready > 0 or group.cursor < topic.next or group.suspects > 0 and member.suspects == 0)
end

-- The first position of an index that says it has some.
local function first_of(group, index)
  local first = call('ZRANGE', P .. index .. ':' .. int(group.incarnation), 0, 0)[1]
  if not first then
    -- Somebody has deleted it: what only it knew does not come back.
    group.returning, group[index] = at_least(group.returning - group[index], 0), 0
  end
  return first
end

-- The position of the next event that comes back to a member, or nil.
local function next_returning(group, member)
  local ready = group.ready > 0 and first_of(group, 'ready')
  local suspect = group.suspects > 0 and member.suspects == 0 and first_of(group, 'suspects')
  if ready and suspect then
    return at_most(tonumber(ready), tonumber(suspect))
  end
  return tonumber(ready or suspect or nil)
end

-- Events of a topic from a position on, three parts for each, and where they begin: what this step has written itself, or
-- what the stream has.
local function fresh_events(topic, from, limit)
  local written = topic.written
  if written and from >= written.from then
    local entries = {}
    local bytes = 0
    for nth = 1, at_most(limit, topic.next - from) do
      local base = written[from - written.from + nth]
      bytes = bytes + #written.list[base + 4] + #written.list[base + 5]
      if bytes > STEP_BYTES and nth > 1 then
        break
      end
      local place = nth * 3
      entries[place - 2], entries[place - 1], entries[place] = written.list[base + 4], written.list[base + 5], written.at
    end
    return entries, from
  end
  local entries = entries_from(P .. 'e:' .. topic.name, from, at_most(limit, topic.next - from), average_of(topic))
  local count, parts = #entries, {}
  if count == 0 then
    return parts, topic.next
  end
  if id_position(entries[count]) ~= id_position(entries[1]) + count - 1 then
    -- Somebody has deleted some: up to the first gap.
    local first = id_position(entries[1])
    count = 1
    while id_position(entries[count + 1]) == first + count do
      count = count + 1
    end
  end
  for nth = 1, count do
    local fields, place = entries[nth][2], nth * 3
    parts[place - 2], parts[place - 1], parts[place] = fields[2], fields[4], fields[6]
  end
  return parts, id_position(entries[1])
end

-- Fresh events for a member, as many as there are in a row.
local function take_fresh(topic, group, consumer, member, max, out, ranges)
  local from = group.cursor
  local parts, found = fresh_events(topic, from, max)
  if found > from then
    table.insert(group.gaps, { from, found - 1 })
    group.cursor = found
    advance(group)
    lose(topic, group, found - from, found)
    if topic.first < found then
      measure(topic)
    end
    return 0
  end
  local count = #parts / 3
  local deadline = now + member.timeout
  fill(group, from, count, struct.pack(CELL, IN_FLIGHT, 0, consumer, 1, 0, 1, now, deadline))
  out[#out + 1] = { 'run', from, deadline, parts }
  ranges[#ranges + 1], ranges[#ranges + 2] = from, count
  group.cursor = from + count
  group.in_flight = group.in_flight + count
  member.in_flight = member.in_flight + count
  for nth = math.floor(from / PAGE), math.floor((from + count - 1) / PAGE) do
    arm_cell(topic, group, { position = nth * PAGE }, deadline)
  end
  return count
end

-- Hands an event out again.
local function take_returning(topic, group, consumer, member, position, out, ranges)
  local cell = find_cell(group, position)
  local event = cell and event_of(topic, cell)
  if not event then
    if cell then
      give_up_lost(topic, group, cell)
    else
      for _, index in ipairs({ 'ready', 'suspects' }) do
        if call('ZREM', P .. index .. ':' .. int(group.incarnation), int(position)) == 1 then
          group[index] = at_least(group[index] - 1, 0)
          group.returning = at_least(group.returning - 1, 0)
        end
      end
    end
    return 0
  end
  unindex(group, cell)
  cell.delivery, cell.attempts, cell.consumer = cell.delivery + 1, cell.attempts + 1, consumer
  cell.state, cell.since, cell.at = IN_FLIGHT, now, now + member.timeout
  save_cell(group, cell)
  hold(group, consumer, member.name, cell.suspect)
  arm_cell(topic, group, cell, cell.at)
  out[#out + 1] =
    { 'one', struct.pack(INFO, position, cell.delivery, cell.attempts, cell.at), event[1], event[2], event[3] }
  ranges[#ranges + 1], ranges[#ranges + 2] = position, 1
  return 1
end

-- Hands out at most `max` events, as {'run', first position, deadline, {e, d, t, …}} for those that were never handed out, and
-- {'one', INFO, e, d, t} for others. Remembers it under the ticket.
local function hand_out(topic, group, consumer, member, max, ticket)
  local out, ranges, taken, bytes = {}, {}, 0, 0
  while taken < max and bytes < STEP_BYTES and has_offer(topic, group, member) do
    local position = next_returning(group, member)
    if position then
      local returned = take_returning(topic, group, consumer, member, position, out, ranges)
      taken, bytes = taken + returned, bytes + (returned > 0 and #out[#out][3] + #out[#out][4] or 0)
    elseif group.cursor < topic.next then
      local room = at_most(max - taken, member.prefetch - member.in_flight)
      local fresh = take_fresh(topic, group, consumer, member, room, out, ranges)
      taken = taken + fresh
      if fresh > 0 and fresh < room then
        break
      end
    end
  end
  if taken > 0 then
    for nth = #member.answers, 1, -1 do
      if member.answers[nth][1] <= member.done then
        table.remove(member.answers, nth)
      end
    end
    table.insert(member.answers, { ticket, ranges })
    save_member(group, consumer, member)
  end
  return out
end

-- Notes in the topic which member of a group waits longest, if any does.
local function list_waiting(topic, group, head)
  for nth, listed in ipairs(topic.waiting) do
    if listed[1] == group.incarnation then
      if head then
        listed[2] = head
      else
        table.remove(topic.waiting, nth)
      end
      return
    end
  end
  if head then
    table.insert(topic.waiting, { group.incarnation, head })
  end
end

local function start_waiting(topic, group, consumer)
  if call('ZADD', P .. 'w:' .. int(group.incarnation), 'NX', now, int(consumer)) == 1 then
    group.waiting = group.waiting + 1
    if group.waiting == 1 then
      list_waiting(topic, group, consumer)
    end
  end
end

local function stop_waiting(topic, group, consumer, member)
  if not member.wait then
    return
  end
  member.wait = false
  save_member(group, consumer, member)
  local queue = P .. 'w:' .. int(group.incarnation)
  if call('ZREM', queue, int(consumer)) == 1 then
    group.waiting = at_least(group.waiting - 1, 0)
  end
  if group.waiting == 0 then
    list_waiting(topic, group)
  else
    local head = call('ZRANGE', queue, 0, 0)[1]
    group.waiting = head and group.waiting or 0
    list_waiting(topic, group, head and tonumber(head))
  end
end

-- Gives back what was handed out under a ticket to a caller that is gone: without an attempt.
local function cancel(group, consumer, member, ticket)
  for nth = #member.answers, 1, -1 do
    local answer = member.answers[nth]
    if answer[1] == ticket then
      table.remove(member.answers, nth)
      for place = 1, #answer[2], 2 do
        for position = answer[2][place], answer[2][place] + answer[2][place + 1] - 1 do
          local cell = find_cell(group, position)
          if cell and cell.state == IN_FLIGHT and cell.consumer == consumer then
            unindex(group, cell)
            cell.attempts, cell.consumer = cell.attempts - 1, 0
            make_ready(group, cell, cell.suspect)
          end
        end
      end
    end
  end
  member.done = at_least(member.done, ticket)
  save_member(group, consumer, member)
end

-- Gives members that wait what there is for them, the longest waiter first; `head`, where it is known.
local function serve(topic, group, head)
  local skipped = 0
  while group.waiting > 0 and (group.ready > 0 or group.suspects > 0 or group.cursor < topic.next) do
    local queue = { head }
    if not head then
      queue = call('ZRANGE', P .. 'w:' .. int(group.incarnation), skipped, skipped + 9)
    end
    local is_head = head ~= nil
    head = nil
    if #queue == 0 then
      return
    end
    for _, text in ipairs(queue) do
      local consumer = tonumber(text)
      local member = find_member(group, consumer)
      if not member or not member.wait then
        call('ZREM', P .. 'w:' .. int(group.incarnation), int(consumer))
        group.waiting = group.waiting - 1
      elseif has_offer(topic, group, member) then
        local ticket, max = member.wait[1], member.wait[2]
        local out = hand_out(topic, group, consumer, member, max, ticket)
        if #out > 0 then
          stop_waiting(topic, group, consumer, member)
          local bytes = 0
          for _, part in ipairs(out) do
            for _, text in ipairs(part[1] == 'run' and part[4] or part) do
              bytes = bytes + #text
            end
          end
          -- Whoever is told of much comes and gets it. Where nobody listens, nobody has it.
          local listens = push(member.channel, { 'delivered', consumer, ticket, bytes <= 65536 and cmsgpack.pack(out) or false })
          if not listens then
            cancel(group, consumer, member, ticket)
          end
        else
          skipped = skipped + (is_head and 0 or 1)
        end
      else
        skipped = skipped + (is_head and 0 or 1)
      end
    end
  end
end
