-- What a group does with time: members leave, deadlines pass, settles are forgotten.

-- Ends a subscription. Its deliveries stay until they end.
local function leave(topic, group, consumer, member)
  stop_waiting(topic, group, consumer, member)
  member.gone = true
  call('SREM', P .. 'pc:' .. string.match(member.channel .. ':', '^[^:]*'), int(group.incarnation) .. ' ' .. int(consumer))
  save_member(group, consumer, member)
  group.members = group.members - 1
  if group.members <= 0 then
    group.members, group.idle = 0, now
    arm_topic(topic, now + C.group_expiry)
  end
end

-- Ends what is due.
local function expire(topic, group)
  local index = group.index
  local served = false
  while budget > 0 do
    local items = call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, 100)
    if #items == 0 then
      break
    end
    local cells, later = {}, {}
    -- At one point in time, what was due comes back in the order of positions: so all of it is collected first.
    for _, item in ipairs(items) do
      later[item] = NEVER
      local positions = {}
      if string.sub(item, 1, 1) == 'r' then
        positions[1] = tonumber(string.sub(item, 2))
      else
        local first = tonumber(item) * BLOCK
        for position = first, first + BLOCK - 1 do
          local page, _, offset = page_of(group, position)
          local state = string.byte(page, offset + 1)
          if state == IN_FLIGHT or state == DELAYED then
            positions[#positions + 1] = position
          end
        end
      end
      for _, position in ipairs(positions) do
        local cell = find_cell(group, position)
        local is_letter = string.sub(item, 1, 1) == 'r'
        if cell and (cell.letter ~= false) == is_letter then
          if cell.state == IN_FLIGHT or cell.state == DELAYED then
            if cell.at <= now then
              cell.item = item
              cells[#cells + 1] = cell
            else
              later[item] = at_most(later[item], cell.at)
            end
          elseif is_letter and is_settled(cell) then
            if cell.since + C.ack_timeout <= now then
              group.letters[position] = false
              remove(group, 'r' .. int(position))
              remove(group, 'x' .. int(position))
              group.revived = group.revived - 1
            else
              later[item] = at_most(later[item], cell.since + C.ack_timeout)
            end
          end
        end
      end
    end
    table.sort(cells, function(a, b) return a.at < b.at or a.at == b.at and a.position < b.position end)
    for nth = #cells, budget + 1, -1 do
      later[cells[nth].item], cells[nth] = cells[nth].at, nil
    end
    for item, at in pairs(later) do
      if at == NEVER then
        call('ZREM', index, item)
      else
        call('ZADD', index, at, item)
      end
    end
    for _, cell in ipairs(cells) do
      budget = budget - 1
      served = true
      if cell.state == DELAYED then
        unindex(group, cell)
        make_ready(group, cell, false)
      else
        local kind = is_member(group, cell.consumer) and 'timed_out' or 'lost'
        if cell.attempts >= group.deliveries then
          bury(topic, group, cell, cell.at, kind)
        else
          local name = handler(group, cell.consumer)
          unindex(group, cell)
          fail(group, cell, name, cell.at, kind)
          make_ready(group, cell, true)
        end
      end
    end
  end
  local next_due = call('ZRANGE', index, 0, 0, 'WITHSCORES')
  group.due, group.armed_block = tonumber(next_due[2] or NEVER), nil
  if served then
    serve(topic, group)
  end
end

-- Forgets what the topic has forgotten: settles that nobody repeats any more, and, of a group that has expired, events
-- that it will never see.
local function forget_before(topic, group)
  local oldest, first = topic.first, group.first
  while group.first < oldest do
    local start = math.floor(group.first / PAGE) * PAGE
    local past = at_most(start + PAGE, oldest)
    if group.expired and group.first >= group.cursor then
      group.lost = group.lost + oldest - group.first
      group.first = oldest
    elseif group.expired then
      past = at_most(past, group.cursor)
      for position = group.first, past - 1 do
        local letter = find_letter(group, position)
        local cell = not letter and find_cell(group, position)
        if cell and not is_settled(cell) then
          unindex(group, cell)
          group.lost = group.lost + 1
        end
        if cell and cell.extra then
          remove(group, 'x' .. int(position))
        end
      end
      fill(group, group.first, past - group.first, string.rep('\0', CELL_BYTES))
      group.first = past
      budget = budget - 1
    else
      local page = page_of(group, start)
      if past < start + PAGE or past > group.floor + 1 or budget <= 0 then
        break
      end
      local forgettable = true
      if oldest - group.first <= C.settles then
        for nth = 0, PAGE - 1 do
          local since = struct.unpack('>I7', string.sub(page, nth * CELL_BYTES + 20, nth * CELL_BYTES + 26))
          forgettable = forgettable and since + C.ack_timeout <= now
        end
      end
      if not forgettable then
        break
      end
      for nth = 0, PAGE - 1 do
        if string.byte(page, nth * CELL_BYTES + 2) >= 2 and not find_letter(group, start + nth) then
          remove(group, 'x' .. int(start + nth))
        end
      end
      group.first = past
      budget = budget - 1
    end
    if group.first >= start + PAGE then
      group.pages[start / PAGE] = BLANK
      remove(group, 'p' .. int(start / PAGE))
      if (start + PAGE) % BLOCK == 0 then
        disarm(group, start)
      end
    end
  end
  if group.first > first then
    group.cursor = at_least(group.cursor, group.first)
    advance(group)
  end
end

-- Lets a group that had expired hold the floor again, and says what it has missed meanwhile.
local function return_group(topic, group)
  if group.expired then
    forget_before(topic, group)
    group.expired = false
    if group.lost > 0 then
      lose(topic, group, group.lost, topic.first)
      group.lost = 0
    end
  end
end
